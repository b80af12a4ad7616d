"""Loggers: what a run sends to TensorBoard, MLflow, Trackio, Weights & Biases and `metrics.csv`.

Every logger of Lightning is sent the metrics and the config of a run. A logger that has one of these methods is sent
more; nothing asks for its class:

    begin(steps)                            once before anything is logged: the steps done, or 0 for a new run
    log_image(key, images, step)            pictures, uint8 arrays [H, W, 3]
    log_table(key, columns, data, step)     rows of texts, numbers and pictures
    log_card(card)                          what the run depends on, once before the training
    log_results(summary)                    the content of summary.json, once after the test
"""
