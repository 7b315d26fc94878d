"""Types that the controller and the ranks share: cells, jobs, records. Standard library only."""
