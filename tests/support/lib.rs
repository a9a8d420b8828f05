//! What the suites share: a real cluster of real binaries, and the programs that are run on it.
