"""Sentences about classes from a language model behind an OpenAI-compatible chat endpoint.

endpoint   one question over the network: key, retries, waits
answers    what counts as an answer, and which sentences are refused
write      class by class into a file that is always whole
"""
