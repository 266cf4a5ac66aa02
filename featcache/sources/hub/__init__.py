"""Data sets of Hugging Face's hub, downloaded at a commit; none of their code is run."""
