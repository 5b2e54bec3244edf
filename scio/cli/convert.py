def convert(): pass
