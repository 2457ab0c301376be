"""From files to batches: which samples, which frames, the same bytes for any number of workers and processes."""

import random
import sys

import cv2
import numpy as np
import pytest
import torch
import yaml

from finetune.data import dataset as dataset_module
from finetune.data.clips import DecordClip, PyavClip, open_clip
from finetune.data.config import DataConfig
from finetune.data.dataset import PairDataset
from finetune.data.degradation.config import PRESETS
from finetune.data.sampler import StepSampler, training_loader
from finetune.data.sources import find_sources
from tests.media import clip, pixels_of, rotated_clip
from vsr.errors import InputError, UsageError
