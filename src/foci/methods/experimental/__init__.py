"""Methods that have not earned their numbers, under the same laws."""
