"""What two or more methods share: the contract, the trainer, selection."""
