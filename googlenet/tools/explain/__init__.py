"""Attribution: which pixels, positions, branches and channels a logit is from.

Functions are pure: (net, images, target, ...) -> NumPy arrays. `net` is a
`Trained`, `images` are uint8 or float [N, H, W, C] in 0..255, before resizing,
and `target` is what `target.resolve` takes. All of them compute in float32 and
in one view of each image, whatever precision and views the run has.
"""
