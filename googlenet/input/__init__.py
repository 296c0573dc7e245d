"""What happens to images on the device before the network sees them."""
