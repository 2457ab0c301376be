"""Training data: clips and images in, pairs of low quality and ground truth out. Runs in CPU workers.

config.DataConfig           what to read, how to crop, how to degrade
dataset.PairDataset         one pair by (kind, number)
sampler.training_loader     batches of pairs, the same whatever the number of workers and processes
latents.LatentCache         the same samples, encoded once and read from files
degradation                 presets, plans and their application
"""
