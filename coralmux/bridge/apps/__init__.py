"""Apps of the user's own in this process: LangChain, LangGraph, CrewAI, AutoGen."""
