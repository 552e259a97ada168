/* SPDX-License-Identifier: MIT */
#ifndef LLMDEV_BASE_NOTIFY_H
#define LLMDEV_BASE_NOTIFY_H

/*
 * Tell the service manager ("READY=1"), as sd_notify(3) documents it: one datagram to the socket that
 * $NOTIFY_SOCKET names. Nothing depends on its arrival.
 */
void notify_manager(const char *state);
/* The same with a descriptor, such as "FDSTORE=1" wants; -1: none. */
void notify_manager_fd(const char *state, int pass);

#endif
