"""What excites a channel: the images of a data set, and the place in each.

ranking.py    the images that excite channels most and least
receptive.py  the pixels that a position of a map sees
gallery.py    the images, with their labels and receptive fields
made.py       images that are made to excite channels
sheet.py      all of it as a picture
"""
