"""Probes: how well the features of a point tell classes apart.

features.py   one vector for each image of a split
knn.py        nearest neighbours
linear.py     multinomial logistic regression
"""
