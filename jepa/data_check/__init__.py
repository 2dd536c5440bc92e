"""`jepa data check`: reads some samples of every split and reports what is bad before a run does."""
