// SPDX-License-Identifier: MIT
/*
 * The layout of uapi/llm.h, field by field. An offset that changes here is a broken ABI, not a
 * test to be updated. layout.h holds the asserts so that a 32-bit compiler can read them too.
 */
#include <stdio.h>

#include "layout.h"
#include "tests/tap.h"

int main(void)
{
	/* The compiler has checked every offset by now; what is left is what only runs show. */
	CHECK(_IOC_SIZE(LLM_IOC_SUBMIT) == 0 && _IOC_DIR(LLM_IOC_SUBMIT) == _IOC_NONE,
	      "command numbers hold no size, so structures can grow");
	CHECK(LLM_IOC_QUERY == 0xBB00 && LLM_IOC_SET_MODE == 0xBB01 && LLM_IOC_SUBMIT == 0xBB02 &&
		      LLM_IOC_CANCEL == 0xBB03,
	      "session commands keep their numbers");
	CHECK(LLM_IOC_DEVICE_CREATE == 0xBB10 && LLM_IOC_DEVICE_ATTACH == 0xBB11 &&
		      LLM_IOC_DEVICE_DESTROY == 0xBB12 && LLM_IOC_DEVICE_QUIESCE == 0xBB13,
	      "control commands keep their numbers");
	CHECK(LLM_IOC_POST == 0xBB20, "the backend command keeps its number");
	CHECK(LLM_IOC_REGION_CREATE == 0xBB30 && LLM_IOC_REGION_OPEN == 0xBB31 &&
		      LLM_IOC_REGION_LIST == 0xBB32 && LLM_IOC_REGION_DESTROY == 0xBB33 &&
		      LLM_IOC_REGION_SEAL == 0xBB34 && LLM_IOC_REGION_INFO == 0xBB35,
	      "region commands keep their numbers");
	CHECK(LLM_IOC_MEM_STATUS == 0xBB38 && LLM_IOC_MEM_FLOORS == 0xBB39 &&
		      LLM_IOC_MEM_RESERVE == 0xBB3A && LLM_IOC_MEM_MAKE_ROOM == 0xBB3B &&
		      LLM_IOC_CACHE_DROP == 0xBB3C,
	      "memory commands keep their numbers");
	CHECK(sizeof(struct llm_resume) <= LLM_RESUME_MAX, "the resume blob fits its bound");
	return tap_done();
}
