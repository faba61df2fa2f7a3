"""The kinds of task that come with peftport, one file or folder each; registered in
`peftport.kind`."""
