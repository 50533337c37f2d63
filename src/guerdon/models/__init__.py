"""Things with weights that judge: detectors of generated images, reward models, discriminators."""
