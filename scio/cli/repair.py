def repair(): pass
