"""Hostile users: what one may not do to another, to recovery points, to a quota, to the speed of the others.

``agents``  processes that act as other users         ``ground``  a store with mounts, served by worker processes
``access``  the matrix of calls and ways              ``points``  writers against recovery points
``quota``   writers racing for the last bytes         ``neighbours``  one mount under attack beside another
"""
