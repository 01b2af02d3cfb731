"""The Gradio app: leaderboard, objectives, comparison, few-shot demo, submissions."""
