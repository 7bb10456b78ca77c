// SPDX-License-Identifier: Apache-2.0
import { Box, Heading, HStack, Stack } from "@chakra-ui/react";
import { Link as RouterLink, useSearchParams } from "react-router-dom";
import { mlPage } from "../links";
import { Artifacts } from "./Artifacts";
import { Lineage } from "./Lineage";
import { Models } from "./Models";
import { Runs } from "./Runs";

const TABS = [
  { id: "models", name: "Models" },
  { id: "artifacts", name: "Artifacts" },
  { id: "lineage", name: "Lineage" },
  { id: "runs", name: "Compare runs" },
];

/** The page of the navigation bar. What it shows is in the URL, so that any view of it can be shared. */
export function MLPage() {
  const [search] = useSearchParams();
  const wanted = search.get("tab");
  const tab = TABS.some((each) => each.id === wanted) ? wanted : "models";
  return (
    <Stack gap={4}>
      <HStack align="baseline" gap={6} wrap="wrap">
        <Heading as="h1" size="xl">
          ML
        </Heading>
        <HStack aria-label="ML" as="nav" gap={1}>
          {TABS.map((each) => (
            <Box
              _focusVisible={{ outline: "2px solid", outlineColor: "fg.info" }}
              _hover={{ bg: "bg.muted" }}
              aria-current={tab === each.id ? "page" : undefined}
              asChild
              borderBottomWidth="2px"
              borderColor={tab === each.id ? "fg.info" : "transparent"}
              fontWeight={tab === each.id ? "semibold" : "normal"}
              key={each.id}
              px={3}
              py={1}
            >
              <RouterLink aria-current={tab === each.id ? "page" : undefined} to={mlPage({ tab: each.id })}>
                {each.name}
              </RouterLink>
            </Box>
          ))}
        </HStack>
      </HStack>
      {tab === "models" ? <Models /> : tab === "artifacts" ? <Artifacts /> : tab === "lineage" ? <Lineage /> : <Runs />}
    </Stack>
  );
}
