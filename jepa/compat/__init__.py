"""Former names and signatures that plug-ins of earlier versions use."""
