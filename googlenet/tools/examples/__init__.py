"""What excites a channel: the images of a data set, and the place in each.

ranking.py    the images that excite channels most and least
receptive.py  the pixels that a position of a map sees
sheet.py      both, as a picture
"""
