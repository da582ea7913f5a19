"""Does training by default reach what logistic regression and scikit-learn's networks reach? See README.md."""
