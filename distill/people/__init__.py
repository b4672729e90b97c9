"""What people say of samples: files of annotations, how good raters are and how far they agree."""
