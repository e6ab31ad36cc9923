"""What the tests of the rollout page share: rollouts told into a real ledger, and the page served from it."""
