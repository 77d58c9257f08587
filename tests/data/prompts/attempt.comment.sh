echo hello > greeting.txt
git add greeting.txt

# ## The task
#
# Item: a
# The text above is the task; these notes are from the harness that runs you.
#
# ## Rules
#
# - Work in the current directory only. It is a git worktree of your own, on a branch of your own.
# - Do not push, do not switch branches, do not merge: what you commit is merged into main for you.
# - Do not use git stash: all worktrees of this repository share one.
# - Commit your work, or leave your changes in the files: then the harness commits them.
# - Nobody can answer while you work. If you cannot go on without a person, write the question to the file named by $HARNESS_INTERRUPT_FILE and finish.
# - What others should know who work here later (a trap, a decision), write to the file named by $HARNESS_FINDINGS_FILE.
