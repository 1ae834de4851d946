/* SPDX-License-Identifier: BSD-2-Clause */
/* Directories that culvert keeps its own files in. */
#ifndef BASE_DIRECTORY_H
#define BASE_DIRECTORY_H

/*
 * Makes the last directory of `path`, which everybody may look into, whatever the
 * umask. One that is there stays as it is. 0 or a negative errno.
 */
int directory_make(const char *path);

/* -EPERM unless it is a directory where root or we ourselves alone may write. */
int directory_own(const char *path);

#endif
