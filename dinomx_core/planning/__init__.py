"""What is decided before anything is built: text -> RunSpec -> Plan. Nothing here imports torch."""
