"""What estimators of all families share: scikit-learn behind one door, their base, their files, their problems."""
