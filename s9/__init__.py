"""The library under the lesson: it never imports model.py, dataset.py, utils.py or a command."""
