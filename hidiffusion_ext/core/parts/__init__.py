"""What can be done in a pass, one file a part: its maths, and below it the part itself (`part.Part`)."""
