"""Audio files to waveforms to normalised log-mel spectrograms, and back to sound."""
