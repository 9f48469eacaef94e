"""What the study on six DROID episodes needs: a small decoder, and learning from few recordings."""
