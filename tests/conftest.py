from hypothesis import HealthCheck, settings

# A busy machine must not fail a test: neither one slow example nor slow generation says anything.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")
