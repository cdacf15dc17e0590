"""The page's sections: each turns a run's records into the figures and charts it shows."""
