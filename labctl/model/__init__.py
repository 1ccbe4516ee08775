"""Predict the speed of a series on a host that nobody measured, from a run on a small one.

The arrows: samples -> `inputs` (costs per page and block) -> `estimate` (parameters, bootstrapped
over blocks) -> `curve` (time by number of workers) -> `prediction` (the document) -> `text`.
"""
