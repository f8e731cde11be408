"""The small languages of option values: ``--mount``, ``-p``, ``--network``, sizes and so on."""
