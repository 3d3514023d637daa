"""What every script shares and no model or data set is known to: options, files, logs, the loop, the evaluator."""
