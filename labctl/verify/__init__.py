"""`labctl verify`: is a patched kernel as correct as its base?"""
