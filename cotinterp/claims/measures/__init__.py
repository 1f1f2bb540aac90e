"""What is measured for the claims, instrument by instrument: a subject and an effort in, rows of evidence out."""
