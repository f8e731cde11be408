"""The Dockerfile language, pure: words, lines, instructions and what they do to an image's config.

Below ``image`` because ``docker commit --change`` and ``docker import --change`` speak it too.
"""
