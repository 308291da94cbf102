"""Copies at storage locations: sent, given up here, freed there, made into stores again, with everything cut off."""
