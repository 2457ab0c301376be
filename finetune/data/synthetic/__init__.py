"""Clips made on the spot, from nothing but a seed and the photographs inside scikit-image."""

from finetune.data.synthetic.camera import CameraMove, film
from finetune.data.synthetic.pictures import HELD_OUT, dead_leaves, photograph
from finetune.data.synthetic.scenes import random_scene

__all__ = ["HELD_OUT", "CameraMove", "dead_leaves", "film", "photograph", "random_scene"]
