"""The result file, and what is read out of many: leaderboard, compare, export."""
