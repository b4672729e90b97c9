"""Networks, teachers and trainings, from a configuration to objects of the training wing."""
