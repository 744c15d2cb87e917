"""graphsr"""
