"""Building a training set as HQ-VSR was built: validate, split into scenes, score, find the motion and crop to it.

One file per stage; a stage sees the clips of one source at a time, in a process of its own (child.py, worker.py).
pipeline.py runs the stages over shards of clips with one of the engines; manifest.py writes what came of every clip.
"""
