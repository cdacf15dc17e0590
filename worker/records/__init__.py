"""What goes over the wire: input records, the published output record, dead letters."""
