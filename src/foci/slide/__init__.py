"""The slider of `foci slide`: scales or prunes the change that training made, and asks the questions along it."""
