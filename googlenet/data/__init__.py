"""Images with labels: data sets, splits, batches on devices, streams, files."""

from googlenet.data.sources import Dataset as Dataset
from googlenet.data.sources import check_labels as check_labels
from googlenet.data.sources import load_dataset as load_dataset
from googlenet.data.sources import read_all as read_all
